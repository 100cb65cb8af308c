"""An evaluation as text, tables, pictures and one HTML page."""
