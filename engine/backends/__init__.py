"""How ranks are started and what they share: one file per engine, pure text and argument lists."""
