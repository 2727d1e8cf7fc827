"""The divergence lab: which ways of training blow up on which traffic, and what each cure costs."""
