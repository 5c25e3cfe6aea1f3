"""Many runs: which are missing, who runs them, how far they are."""
