"""A file of jobs, submitted and waited for so that it may be interrupted anywhere and begun again (`submitjobs`)."""
