"""What things cost: estimates, measurements, and plans for chips that are not here."""
