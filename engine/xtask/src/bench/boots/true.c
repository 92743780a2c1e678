/* What every unit of the measured graphs runs. */
int main(void)
{
	return 0;
}
