"""The web page and the HTTP endpoint: they show what `classify` and `gan` answer."""
