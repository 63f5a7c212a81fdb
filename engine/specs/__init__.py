"""The nouns that flow between the rooms: frozen values, no behaviour beyond arithmetic on themselves."""
