"""Metrics of origins, as papers define them, and two origins compared on shared tasks."""
