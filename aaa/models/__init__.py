"""Encoders to put patterns into: pre-trained ones, new ones, and a tiny one for the demo."""

from aaa.models.encoder import Encoder, Pretrainable, Start

__all__ = ["Encoder", "Pretrainable", "Start"]
