"""What is wrong with a model or its training, and what to change: for any Keras model."""
