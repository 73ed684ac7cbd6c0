"""What is known of growth and of cephalometric landmarks: plain facts, no input or output."""
