"""What the stages run: one set-up, one resumable runner, one module for each experiment."""
