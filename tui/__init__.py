"""The screens: they read nouns, send messages and own no state of their own."""
