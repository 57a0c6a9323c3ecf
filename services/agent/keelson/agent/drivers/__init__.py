"""What runs instances, each way in a module or package of its own."""
