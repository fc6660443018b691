"""Building blocks of quantizers, which the compiler inlines like those of models."""
