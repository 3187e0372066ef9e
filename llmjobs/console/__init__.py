"""The web page at `/`: log in, submit, watch, cancel. The browser does the work through the API, as any client does."""
