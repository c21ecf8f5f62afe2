"""What the documentation is built with: its generated parts, its pictures, and the hooks of mkdocs."""
