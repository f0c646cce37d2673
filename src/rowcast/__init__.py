"""From a table to decisions you can explain, replay and trust."""
