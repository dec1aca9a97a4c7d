"""The op of the page on adding an op."""
