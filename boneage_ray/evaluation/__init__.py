"""From predictions to figures, pictures and a page; and the page builder that other jobs share."""
