"""The stand-ins of a dry run: a mocked AWS and the machines it boots, both on loopback."""
