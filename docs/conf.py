"""The site that `tox -e docs` builds from docs/."""

project = "convmark"
extensions = ["myst_parser"]
html_theme = "furo"
html_title = "convmark"
html_copy_source = False
html_show_copyright = False
exclude_patterns = ["_build"]
myst_heading_anchors = 3
nitpicky = True
smartquotes = False  # `--option` outside of code keeps both hyphens
