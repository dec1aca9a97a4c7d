"""What is drawn over photos, and how panels are arranged on a sheet (needs matplotlib)."""
