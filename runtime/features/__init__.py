"""One module a feature, each with the same four functions; ``runtime.apply.Feature`` describes them."""
