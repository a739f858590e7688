"""Charts as numbers: axes with round ticks, and marks in pixels, drawn as SVG by the page."""
