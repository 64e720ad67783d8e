"""Tables, plots and Markdown from artifacts."""
