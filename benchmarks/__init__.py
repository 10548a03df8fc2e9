"""The numbers that the project answers for, measured side by side with the plain expressions and with PyTorch."""
