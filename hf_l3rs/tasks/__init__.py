"""Fine-tuning tasks and the inner loop, which meta-training and evaluation share."""
