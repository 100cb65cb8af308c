"""The ground: files, pictures, devices, processes, detectors, and commands that need no more or run doors by name."""
