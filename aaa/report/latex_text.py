"""Any text as LaTeX, such that pdflatex takes it with no other package and whatever the fonts."""

from __future__ import annotations

import re
import unicodedata

GREEK = {
    letter: rf"$\{name}$"
    for letters, names in (
        ("αβγδεζηθικ", "alpha beta gamma delta epsilon zeta eta theta iota kappa"),
        ("λμνξπρστυφχψω", "lambda mu nu xi pi rho sigma tau upsilon phi chi psi omega"),
        ("ΓΔΘΛΞΠΣΥΦΨΩ", "Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega"),
    )
    for letter, name in zip(letters, names.split(), strict=True)
}  # fmt: skip
# What LaTeX takes for signs of its own, and what its fonts have only in mathematics.
SIGNS = GREEK | {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$",
    "#": r"\#", "_": r"\_", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''",
    "±": r"$\pm$", "×": r"$\times$", "·": r"$\cdot$", "÷": r"$\div$", "°": r"$^{\circ}$",
    "↑": r"$\uparrow$", "↓": r"$\downarrow$", "→": r"$\rightarrow$", "←": r"$\leftarrow$",
    "†": r"$\dagger$", "‡": r"$\ddagger$", "≥": r"$\geq$", "≤": r"$\leq$", "≈": r"$\approx$",
    "≠": r"$\neq$", "∞": r"$\infty$", "\N{UNION}": r"$\cup$", "\N{INTERSECTION}": r"$\cap$",
    "∈": r"$\in$", "∑": r"$\sum$", "∇": r"$\nabla$", "∂": r"$\partial$", "√": r"$\surd$",
    "\N{MINUS SIGN}": r"$-$", "–": "--", "—": "---", "\N{HYPHEN}": "-", "…": r"\ldots{}",
    "\N{LEFT SINGLE QUOTATION MARK}": "`", "\N{RIGHT SINGLE QUOTATION MARK}": "'",
    "“": "``", "”": "''", "„": "''", "«": "''", "»": "''", "\N{FRACTION SLASH}": "/",
    "ß": r"\ss{}", "æ": r"\ae{}", "Æ": r"\AE{}", "œ": r"\oe{}", "Œ": r"\OE{}", "ø": r"\o{}",
    "Ø": r"\O{}", "ł": r"\l{}", "Ł": r"\L{}", "\N{LATIN SMALL LETTER DOTLESS I}": r"\i{}",
    "§": r"\S{}", "¶": r"\P{}",
}  # fmt: skip
SIGNS |= {
    sign: f"$^{{{digit}}}$" for digit, sign in zip("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹", strict=True)
}
SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
# LaTeX's names of what stands above or below a letter in unicode.
ACCENTS = {
    "\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u",
    "\u0307": ".", "\u0308": '"', "\u030a": "r", "\u030b": "H", "\u030c": "v", "\u0327": "c",
}  # fmt: skip
UNKNOWN = "?"


def escape(text: str) -> str:
    """Any text as LaTeX; unicode's subscript digits become LaTeX's.

    A sign that LaTeX has no name for becomes what it is like in ASCII, or a question mark.
    """
    parts = re.split("([₀-₉]+)", unicodedata.normalize("NFC", text))
    return "".join(
        f"$_{{{part.translate(SUBSCRIPTS)}}}$" if place % 2 else "".join(map(_escaped, part))
        for place, part in enumerate(parts)
    )


def _escaped(sign: str) -> str:
    if sign in SIGNS:
        return SIGNS[sign]
    if sign.isascii() and sign.isprintable():
        return sign
    parts = unicodedata.normalize("NFD", sign)
    letter, mark = parts[0], parts[1:2]
    if letter.isascii() and letter.isalpha() and mark in ACCENTS:
        return rf"\{ACCENTS[mark]}{{{letter}}}"
    if sign.isspace():
        return " "
    if unicodedata.category(sign) in ("Cc", "Cf", "Me", "Mn"):  # unseen, or without a letter
        return ""
    like = unicodedata.normalize("NFKD", sign)
    return UNKNOWN if like == sign else "".join(map(_escaped, like))
