"""What cutting or quantising a model would cost, measured without training."""
