"""The documentation that the site serves at `/docs/`: Markdown in `pages/`, made into HTML here, open to whoever
reaches the site, since it holds nothing of anybody.
"""
