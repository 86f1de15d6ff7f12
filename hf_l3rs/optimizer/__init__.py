"""
The optimizer: what it needs for a step, and what it tells.

A gradient goes through two files: `L3RS.step` (optimizer.py) takes the loss and hands each group to a `Binding`, whose
`LayerStack.step` (both step.py) measures all layers, asks the network what to do and moves the parameters.
"""
