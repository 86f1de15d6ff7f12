"""The learned optimizer itself: what it sees, what it decides, and the step that follows."""
