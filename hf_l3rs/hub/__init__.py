"""The artefact: in a folder, on the Hub, and its model card."""
