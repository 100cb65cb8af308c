"""The ground: files, pictures, devices, processes, detectors, and the commands that need nothing above them."""
