"""Fine-tuning: encoders and head are trained together, one replicate after another."""
