"""edgefer: train, quantize, prove and run small facial-expression networks on small computers."""

__version__ = "0.1.0"
