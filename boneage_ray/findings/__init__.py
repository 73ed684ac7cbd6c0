"""What becomes of a model's predictions, as one abstract class that every task implements: rows, explanation, evaluation."""
