"""What is added to the loss while a model trains: a force on norms, a teacher."""
