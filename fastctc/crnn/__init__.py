"""A convolutional recurrent network (CRNN) that reads a line of text from an image, trained with CTC."""
