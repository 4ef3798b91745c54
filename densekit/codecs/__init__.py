"""Codecs: the user's data and the tensors that models see, both ways, with the Jacobian between them."""
