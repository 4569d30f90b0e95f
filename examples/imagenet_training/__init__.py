"""Training of residual networks on ImageNet, one subject for each module.

Data flows one way: folder -> images -> pipeline -> data -> loop, and
config -> optimizers, placement -> trainer -> loop.
"""
