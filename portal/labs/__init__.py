"""The lab as the portal knows it: `lab.json`."""
