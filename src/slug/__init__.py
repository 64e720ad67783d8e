"""SLUG: targeted unlearning with a single layer unlearning gradient (Cai, Tan, Asif; ICML 2025; arXiv 2407.11867)."""

__version__ = "0.2.0"
