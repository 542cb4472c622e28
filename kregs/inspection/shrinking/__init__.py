"""Which channels of a model can go without changing what it computes, and the model without them.

1.  `rules.py` knows what each layer does with single channels (the last axis of a tensor): which
    outputs are constant, which inputs are read, and which channels can only go together.
2.  `channels.py` follows the channels through the whole model, models inside included.
3.  `removal.py` finds the largest set of channels that can go.
4.  `smaller_model.py` builds the model without them; constants go into biases.
"""
