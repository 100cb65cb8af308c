"""The ground: files, pictures, devices, processes, detectors, and commands that need no more or run the doors as programs."""
