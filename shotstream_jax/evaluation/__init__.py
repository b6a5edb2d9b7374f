"""How well a model films: films of unseen stories, made by any network, judged by the oracle."""
