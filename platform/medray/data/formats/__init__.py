"""One module per file format: how it is read and written, with its conventions side by side.

Nothing here is imported until a file of that format is met. `medray.data.readers` and `medray.data.writers` dispatch.
"""
