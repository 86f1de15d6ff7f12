"""The optimizer: `L3RS.step` (optimizer.py) hands each group to a `Binding`, whose `LayerStack` (step.py) moves it."""
