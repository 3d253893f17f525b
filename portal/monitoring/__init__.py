"""Prometheus and Grafana, seen from the portal. No Django inside."""
